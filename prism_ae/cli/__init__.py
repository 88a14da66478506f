"""The command line: one module per verb, thin. Heavy imports happen inside the verbs, so that help is instant."""
