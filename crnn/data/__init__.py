"""Where clips come from: GTZAN, any folder of genre folders, and their log-mels."""
