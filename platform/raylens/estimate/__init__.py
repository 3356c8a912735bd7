"""What a run takes before it is started: operations, memory, network traffic and time."""
