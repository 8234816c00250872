"""The page that shows what a lake holds: tables, segments, rejections, differences, training examples."""
