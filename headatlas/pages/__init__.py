"""Head pages: what heads do all day on a text of one's own, what several things a head does, and what removing it does there."""
