"""Information flow routes: which parts of a prediction came along which edges."""
