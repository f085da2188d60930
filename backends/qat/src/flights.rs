//! A queue's jobs that are out, by number.

/// A table with numbers that are used again. A number is known to nobody any more when its job is taken out: requests carry
/// cookies of their own, so nothing late can name it.
pub(crate) struct Flights<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Flights<T> {
    pub(crate) fn new(depth: usize) -> Self {
        Flights { places: Vec::with_capacity(depth), free: Vec::with_capacity(depth) }
    }

    pub(crate) fn insert(&mut self, flight: T) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self.places[number as usize] = Some(flight);
                number
            }
            None => {
                self.places.push(Some(flight));
                self.places.len() as u32 - 1
            }
        }
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.places.get_mut(number as usize)?.as_mut()
    }

    pub(crate) fn take(&mut self, number: u32) -> Option<T> {
        let flight = self.places.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(flight)
    }

    /// Takes all of them out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.free.clear();
        std::mem::take(&mut self.places).into_iter().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_counted() {
        let mut flights = Flights::new(2);
        let (a, b) = (flights.insert('a'), flights.insert('b'));
        assert_eq!(flights.take(a), Some('a'));
        assert_eq!(flights.take(a), None);
        assert_eq!(flights.insert('c'), a);
        assert_eq!((flights.len(), flights.get_mut(b).copied()), (2, Some('b')));
        assert_eq!(flights.drain().collect::<String>(), "cb");
        assert!(flights.is_empty() && flights.get_mut(a).is_none());
    }
}
