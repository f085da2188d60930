//! Reading what `swanctl --pretty` prints: sections in braces, one `key = value` a line.

/// A section: its values and the sections inside it.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Section {
    /// What stands before the brace.
    pub name: String,
    /// Sections inside, in order.
    pub children: Vec<Section>,
    values: Vec<(String, String)>,
}

impl Section {
    /// The value of a key, empty if it is not there.
    pub fn value(&self, key: &str) -> &str {
        self.values.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}

/// Parse; lines that fit nothing are passed over, unclosed sections end with the text.
pub fn parse(text: &str) -> Section {
    let mut open = vec![Section::default()];
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix('{') {
            open.push(Section { name: name.trim().to_owned(), ..Section::default() });
        } else if line == "}" {
            close(&mut open);
        } else if let Some((key, value)) = line.split_once(" = ")
            && let Some(section) = open.last_mut()
        {
            section.values.push((key.to_owned(), value.to_owned()));
        }
    }
    while open.len() > 1 {
        close(&mut open);
    }
    open.pop().unwrap_or_default()
}

fn close(open: &mut Vec<Section>) {
    if open.len() > 1
        && let Some(done) = open.pop()
        && let Some(outer) = open.last_mut()
    {
        outer.children.push(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "list-sa event {
  site {
    uniqueid = 1
    state = ESTABLISHED
    local-id = C=CH, O=Lab, CN=moon.lab.test
    tasks-active = [
    ]
    child-sas {
      net-1 {
        name = net
        state = INSTALLED
        spi-in = c0ffee01
      }
      net-2 {
        state = REKEYED
      }
    }
  }
}
list-sas reply {
}
";

    #[test]
    fn sections_nest_and_values_may_hold_equals_signs() {
        let all = parse(LISTED);
        let site = &all.children[0].children[0];
        assert_eq!(site.name, "site");
        assert_eq!(site.value("local-id"), "C=CH, O=Lab, CN=moon.lab.test");
        let children = &site.children[0].children;
        assert_eq!(
            children.iter().map(|child| child.value("state")).collect::<Vec<_>>(),
            ["INSTALLED", "REKEYED"]
        );
        assert_eq!(children[0].value("spi-in"), "c0ffee01");
        assert_eq!(all.children[1].name, "list-sas reply");
    }

    #[test]
    fn a_listing_cut_short_keeps_what_there_was() {
        let all = parse("list-sa event {\n site {\n state = CONNECTING\n");
        assert_eq!(all.children[0].children[0].value("state"), "CONNECTING");
    }
}
