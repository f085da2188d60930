//! The caller's table of work that is out: a slab whose keys carry a generation, so that a late, doubled or invented
//! completion finds nothing.

/// The caller's name for a job. Backends carry it and never look inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    fn new(index: u32, generation: u32) -> Self {
        Token(u64::from(generation) << 32 | u64::from(index))
    }

    fn index(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

enum Slot<T> {
    Free { next: Option<u32> },
    Taken(T),
}

/// A bounded generational table from [`Token`] to whatever the caller wants to remember about a job.
pub struct InFlight<T> {
    slots: Vec<(u32, Slot<T>)>,
    free: Option<u32>,
    len: usize,
    cap: usize,
}

impl<T> InFlight<T> {
    /// A table for at most `cap` jobs. Memory grows as it is used, up to that.
    pub fn new(cap: usize) -> Self {
        InFlight { slots: Vec::new(), free: None, len: 0, cap: cap.min(u32::MAX as usize) }
    }

    /// Remembers `what`; hands it back when the table is full, which is back-pressure.
    ///
    /// # Errors
    /// The value itself, when the table is full.
    pub fn insert(&mut self, what: T) -> Result<Token, T> {
        if let Some(index) = self.free {
            let (generation, slot) = &mut self.slots[index as usize];
            if let Slot::Free { next } = slot {
                self.free = *next;
            }
            *slot = Slot::Taken(what);
            self.len += 1;
            return Ok(Token::new(index, *generation));
        }
        if self.slots.len() >= self.cap {
            return Err(what);
        }
        self.slots.push((1, Slot::Taken(what)));
        self.len += 1;
        Ok(Token::new((self.slots.len() - 1) as u32, 1))
    }

    /// Takes out what `token` named. `None`: unknown, late or doubled.
    pub fn take(&mut self, token: Token) -> Option<T> {
        let (generation, slot) = self.slots.get_mut(token.index())?;
        if *generation != token.generation() || !matches!(slot, Slot::Taken(_)) {
            return None;
        }
        // Generation 0 is skipped so that no token is ever all zeroes.
        *generation = generation.checked_add(1).unwrap_or(1);
        let old = std::mem::replace(slot, Slot::Free { next: self.free });
        self.free = Some(token.index() as u32);
        self.len -= 1;
        match old {
            Slot::Taken(what) => Some(what),
            Slot::Free { .. } => None,
        }
    }

    /// Looks at what `token` names.
    pub fn peek(&self, token: Token) -> Option<&T> {
        match self.slots.get(token.index()) {
            Some((generation, Slot::Taken(what))) if *generation == token.generation() => Some(what),
            _ => None,
        }
    }

    /// What `token` names, to change it in place.
    pub fn slot(&mut self, token: Token) -> Option<&mut T> {
        match self.slots.get_mut(token.index()) {
            Some((generation, Slot::Taken(what))) if *generation == token.generation() => Some(what),
            _ => None,
        }
    }

    /// Everything that is remembered, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, (generation, slot))| match slot {
            Slot::Taken(what) => Some((Token::new(index as u32, *generation), what)),
            Slot::Free { .. } => None,
        })
    }

    /// Jobs remembered now.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is out.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Jobs that may still be inserted.
    pub fn room(&self) -> usize {
        self.cap - self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_or_doubled_completion_is_noticed() {
        let mut table = InFlight::new(2);
        let a = table.insert("a").unwrap();
        assert_eq!(table.take(a), Some("a"));
        assert_eq!(table.take(a), None, "doubled");
        let b = table.insert("b").unwrap();
        assert_ne!(a, b, "the slot is reused, the token is not");
        assert_eq!(table.take(a), None, "late");
        assert_eq!(table.take(Token(77)), None, "invented");
        assert_eq!(table.take(b), Some("b"));
    }

    #[test]
    fn what_is_out_can_be_looked_through() {
        let mut table = InFlight::new(4);
        let [a, b, c] = ["a", "b", "c"].map(|name| table.insert(name).unwrap());
        table.take(b);
        assert_eq!(table.iter().collect::<Vec<_>>(), [(a, &"a"), (c, &"c")]);
    }

    #[test]
    fn a_full_table_gives_the_value_back() {
        let mut table = InFlight::new(1);
        let a = table.insert(1).unwrap();
        assert_eq!(table.insert(2), Err(2));
        assert_eq!(table.room(), 0);
        table.take(a);
        assert!(table.insert(2).is_ok());
    }
}
