"""What providers report after they have accepted: who sent the report is checked, and what it says is put into our words."""
