"""What runs without a person: jobs, schedules, sensors, alerts, the state of nights."""
