"""Break the running loop on purpose, by a seeded schedule, and count what is lost, doubled or spoiled."""
