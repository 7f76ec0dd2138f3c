"""What `manage.py dev` is made of: programs, a Redis for them, and what counts as a change."""
