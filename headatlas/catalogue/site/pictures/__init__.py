"""The site's drawings, as SVG: the stages with their head types, circuits, charts over time."""
