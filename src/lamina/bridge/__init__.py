"""What a frontend asks of its build, whoever it is: built in, a client at the other end, a program in a container."""
