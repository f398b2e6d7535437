"""Attribution: estimates of effects from gradients, of heads, MLPs and edges."""
