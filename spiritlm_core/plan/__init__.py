"""What a run would do, known before anything is computed: the graph of a recipe, and the plan of every stage."""
