"""What pagebus costs, beside what a user would pick instead. Run it with ``make bench``."""
