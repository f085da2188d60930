//! RADIUS as a client.
