"""What an exposure holds, without an attack."""

from attacks.inversion.measures.jacobian import Derivative, jacobian
from attacks.inversion.measures.measure import Measures, Method, measure, shared_jacobian
from attacks.inversion.measures.prior import Prior

__all__ = ["Derivative", "Measures", "Method", "Prior", "jacobian", "measure", "shared_jacobian"]
