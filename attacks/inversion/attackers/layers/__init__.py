"""What single layers say of a sample: linear algebra on their gradients, and no descent."""
