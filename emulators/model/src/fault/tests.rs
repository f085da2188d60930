use super::*;

const SERVICES: [&str; 2] = ["sym", "asym"];

fn parse(text: &str) -> Result<Plan, String> {
    Plan::parse("plan.toml", text, &SERVICES).map_err(|error| error.to_string())
}

fn jobs(faults: &mut Faults, count: u64) -> Vec<bool> {
    let mut job = || !faults.strike(Occasion::Job, Some(2), Some(0), Time::ZERO).is_empty();
    (0..count).map(|_| job()).collect()
}

#[test]
fn a_plan_has_a_seed_and_faults_with_conditions() {
    let plan = parse(
        "seed = 9\n[[fault]]\nkind = \"delay\"\nby = \"20ms\"\nafter = 3\nring = 2\nservice = \"asym\"\ntimes = 4\n\
         [[fault]]\nkind = \"flip-bit\"\nprobability = 0.25\n\
         [[fault]]\nkind = \"restart\"\ngrace = \"1s\"\naway = \"250ms\"\nat = \"2s\"\n",
    )
    .unwrap();
    let delay =
        Fault::new(Kind::Delay(Duration::from_millis(20))).after(3).on_ring(2).for_service(1).times(4);
    let restart = Kind::Restart { grace: Duration::from_secs(1), away: Duration::from_millis(250) };
    let restart = Fault::new(restart).at(Time::from_nanos(2_000_000_000));
    assert_eq!(plan.faults, [delay, Fault::new(Kind::FlipBit).with_probability(0.25), restart]);
    assert_eq!(plan.seed, 9);
    assert_eq!(parse("").unwrap(), Plan::default());
}

#[test]
fn what_is_wrong_is_said_with_the_line_and_what_was_meant() {
    let wrong = [
        (
            "[[fault]]\nkind = \"dely\"\n",
            "plan.toml:2: there is no fault of kind \"dely\"; did you mean \"delay\"?",
        ),
        (
            "[[fault]]\nkind = \"explode\"\n",
            "plan.toml:2: there is no fault of kind \"explode\"; there are: delay, ",
        ),
        ("[[fault]]\nkind = \"delay\"\n", "plan.toml:2: \"delay\" needs \"by\", a time such as \"20ms\""),
        ("[[fault]]\nkind = \"delay\"\nby = \"20\"\n", "plan.toml:3: \"20\" has no unit"),
        ("[[fault]]\nkind = \"unplug\"\nby = \"20ms\"\n", "plan.toml:3: \"unplug\" takes no \"by\""),
        ("[[fault]]\nkind = \"unplug\"\nprobability = 2.0\n", "plan.toml:3: a probability is between"),
        ("[[fault]]\nkind = \"unplug\"\ntimes = \"often\"\n", "plan.toml:3: times is a number or \"always\""),
        (
            "[[fault]]\nkind = \"unplug\"\nservice = \"disk\"\n",
            "plan.toml:3: there is no service \"disk\"; there are: sym",
        ),
        ("[[fault]]\nkind = \"unplug\"\nwhen = 1\n", "plan.toml:3: unknown field `when`"),
        ("\n\nseed = -1\n", "plan.toml:3: "),
        ("[[fault]]\nkind = \"slow\"\nfactor = -1.0\nfor = \"1s\"\n", "plan.toml:3: a factor is more than"),
        ("[[fault]\n", "plan.toml:1: "),
    ];
    for (text, begins) in wrong {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(begins), "{text:?} gives: {error}");
    }
}

#[test]
fn every_kind_has_a_word() {
    let arguments = "by = \"1ms\"\njobs = 2\nfactor = 2.0\nfor = \"1ms\"\ngrace = \"1ms\"\naway = \"1ms\"\n";
    for (word, takes) in super::plan::kinds() {
        let given: String = arguments
            .lines()
            .filter(|line| takes.iter().any(|name| line.starts_with(&format!("{name} "))))
            .map(|line| format!("{line}\n"))
            .collect();
        let text = format!("[[fault]]\nkind = \"{word}\"\n{given}");
        let plan = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(plan.faults[0].kind.name(), word);
    }
}

#[test]
fn a_fault_strikes_after_its_number_and_so_often() {
    let plan = |fault| Plan { seed: 1, faults: vec![fault] };
    let mut faults = Faults::new(&plan(Fault::new(Kind::FlipBit).after(2).times(2)));
    assert_eq!(jobs(&mut faults, 6), [false, false, true, true, false, false]);
    let mut faults = Faults::new(&plan(Fault::new(Kind::FlipBit).always()));
    assert_eq!(jobs(&mut faults, 3), [true; 3]);
    let mut faults = Faults::new(&plan(Fault::new(Kind::FlipBit).on_ring(3).always()));
    assert_eq!(jobs(&mut faults, 2), [false; 2]);
    let mut faults = Faults::new(&plan(Fault::new(Kind::FlipBit).for_service(1).always()));
    assert_eq!(jobs(&mut faults, 2), [false; 2]);
    let mut faults = Faults::new(&plan(Fault::new(Kind::SlowReset(Duration::ZERO)).always()));
    assert_eq!(jobs(&mut faults, 2), [false; 2]);
    assert_eq!(faults.strike(Occasion::Reset, None, None, Time::ZERO).len(), 1);
}

#[test]
fn the_seed_decides_what_probability_leaves_open() {
    let course = |seed| {
        let fault = Fault::new(Kind::LoseCompletion).with_probability(0.5);
        jobs(&mut Faults::new(&Plan { seed, faults: vec![fault] }), 64)
    };
    assert_eq!(course(3), course(3));
    assert_ne!(course(3), course(4));
    assert!(course(3).iter().any(|hit| *hit) && course(3).iter().any(|hit| !*hit));
}

#[test]
fn the_clock_sets_off_what_needs_no_job() {
    let at = Time::from_nanos(50);
    let plan =
        Plan { seed: 0, faults: vec![Fault::new(Kind::Unplug).at(at), Fault::new(Kind::FlipBit).at(at)] };
    let mut faults = Faults::new(&plan);
    assert_eq!(faults.next(), Some(at));
    assert!(faults.strike_by_the_clock(Time::from_nanos(49)).is_empty());
    assert_eq!(jobs(&mut faults, 2), [false; 2], "too early for the bit, and the plug waits for no job");
    assert_eq!(faults.strike_by_the_clock(at), [Kind::Unplug]);
    assert_eq!(faults.next(), None);
    assert_eq!(faults.strike(Occasion::Job, None, None, at), [Kind::FlipBit]);
    assert_eq!(faults.struck().values().sum::<u64>(), 2);
}
