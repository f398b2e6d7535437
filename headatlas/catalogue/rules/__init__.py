"""What `headatlas papers check` asks of the data, one file for each kind of rule; each rule yields Problems."""
