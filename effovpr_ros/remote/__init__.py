"""What a robot and a server of maps say to each other."""
