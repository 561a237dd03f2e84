"""A small web application: one page that says where it runs, and one for machines."""
