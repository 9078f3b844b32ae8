"""What every other package stands on: errors, settings, poses, pictures, files."""
