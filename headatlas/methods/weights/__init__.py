"""What heads do by their weights alone: QK and OV circuits, copying, composition."""
