"""Programs that run in processes of their own, to be measured from outside."""
