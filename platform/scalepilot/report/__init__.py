"""What people look at: charts, pages, words and replays of what was evaluated."""
