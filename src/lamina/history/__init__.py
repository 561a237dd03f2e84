"""What builds leave behind: a record of each, its steps, their logs. Nothing here decides what a build does."""
