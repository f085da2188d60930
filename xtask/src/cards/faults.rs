//! What can go wrong with a card, one kind at a time, as plans of the emulator.

/// A kind of fault.
pub struct Fault {
    /// What it is called here.
    pub name: &'static str,
    /// What happens, one line.
    pub shows: &'static str,
    /// One or more `[[fault]]` of a plan, without the first such line. It happens while traffic goes on, or some seconds after the
    /// card was put in.
    plan: &'static str,
}

impl Fault {
    /// As the emulator reads it.
    pub fn plan(&self) -> String {
        format!("seed = 7\n\n[[fault]]\n{}\n", self.plan)
    }
}

macro_rules! faults {
    ($($place:ident: $name:literal, $shows:literal, $plan:literal;)*) => {
        $(
            #[doc = $shows]
            pub const $place: Fault = Fault { name: $name, shows: $shows, plan: $plan };
        )*
        /// All of them.
        pub const ALL: &[&Fault] = &[$(&$place),*];
    };
}

faults! {
    DELAY: "card-delay", "completions come late",
        "kind = \"delay\"\nby = \"20ms\"\nat = \"7s\"\ntimes = 20";
    REORDER: "card-reorder", "completions come in another order",
        "kind = \"reorder\"\njobs = 3\nat = \"7s\"\ntimes = 20";
    LOST: "card-lost", "a completion never comes",
        "kind = \"lost-completion\"\nservice = \"sym\"\nat = \"7s\"";
    DOUBLED: "card-doubled", "completions come twice",
        "kind = \"doubled-completion\"\nat = \"7s\"\ntimes = 5";
    COOKIE: "card-cookie", "a completion is in the name of another",
        "kind = \"wrong-cookie\"\nservice = \"sym\"\nat = \"7s\"";
    FLIP: "card-flip", "results have a wrong bit",
        "kind = \"flip-bit\"\nservice = \"sym\"\nat = \"7s\"\ntimes = 5";
    ENGINE: "card-engine", "the engine fails",
        "kind = \"engine-error\"\nservice = \"sym\"\nat = \"7s\"\ntimes = 3";
    FULL: "card-full", "a ring takes nothing for a while",
        "kind = \"ring-full\"\nfor = \"100ms\"\nservice = \"sym\"\nat = \"7s\"";
    SLOW: "card-slow", "a card gets slow",
        "kind = \"slow\"\nfactor = 50.0\nfor = \"1s\"\nservice = \"sym\"\nat = \"7s\"";
    UNCORRECTABLE: "card-uncorrectable", "an error that only a reset mends",
        "kind = \"uncorrectable\"\nat = \"7s\"";
    RESTART: "card-restart", "the card's owner restarts it",
        "kind = \"restart\"\ngrace = \"100ms\"\naway = \"500ms\"\nat = \"7s\"";
    SILENCE: "card-silence", "a card stops without a word",
        "kind = \"silence\"\nat = \"7s\"";
    UNPLUG: "card-unplug", "a card is gone for good",
        "kind = \"unplug\"\nat = \"7s\"";
    SLOW_RESET: "card-slow-reset", "an error, and then a reset that takes long",
        "kind = \"uncorrectable\"\nat = \"7s\"\n\n[[fault]]\nkind = \"slow-reset\"\nfor = \"700ms\"\nafter = 1";
    NO_INTERRUPT: "card-no-interrupt", "interrupts do not come",
        "kind = \"lost-interrupt\"\nat = \"7s\"\ntimes = 10";
    FALSE_INTERRUPT: "card-false-interrupt", "interrupts come for nothing",
        "kind = \"spurious-interrupt\"\nat = \"7s\"\ntimes = 10";
    MAILBOX: "card-mailbox", "an error, and then nobody answers messages about the reset",
        "kind = \"uncorrectable\"\nat = \"7s\"\n\n[[fault]]\nkind = \"mailbox-silent\"\nat = \"7s\"\ntimes = 2";
    CHECKSUM: "card-checksum", "an error, and then answers about the reset that are not what was sent",
        "kind = \"uncorrectable\"\nat = \"7s\"\n\n[[fault]]\nkind = \"mailbox-bad-checksum\"\nat = \"7s\"\ntimes = 2";
    INCOMPATIBLE: "card-incompatible", "an error, and then an owner of another version",
        "kind = \"uncorrectable\"\nat = \"7s\"\n\n[[fault]]\nkind = \"mailbox-incompatible\"\nat = \"7s\"";
}
