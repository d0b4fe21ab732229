"""Many recipes on one model: what they share is found out once, and what each costs and keeps stands in one table."""
