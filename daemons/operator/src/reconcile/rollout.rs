//! Which region runs which version: one region after the other, those of a lower priority first. A function.

use std::collections::BTreeMap;

/// A region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Of a lower number: earlier.
    pub priority: u16,
    /// What it is to run until now; `None`: it is not there yet.
    pub told: Option<String>,
    /// What everything in it runs.
    pub runs: Option<String>,
    /// Everything in it is as it should be.
    pub is_ready: bool,
}

/// For each region the version that it is to run, given the one that all are to run in the end.
pub fn rollout(mut places: Vec<Place>, wanted: &str) -> BTreeMap<String, String> {
    places.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
    let mut may_go_on = true;
    let mut versions = BTreeMap::new();
    for place in places {
        let has_begun = place.told.as_deref() == Some(wanted);
        let version = match place.told {
            Some(told) if !may_go_on && !has_begun => told,
            _ => wanted.to_owned(),
        };
        may_go_on &= place.is_ready && place.runs.as_deref() == Some(wanted);
        versions.insert(place.name, version);
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, priority: u16, told: &str, is_ready: bool) -> Place {
        let told = Some(told.to_owned()).filter(|told| !told.is_empty());
        Place { name: name.to_owned(), priority, runs: told.clone(), told, is_ready }
    }

    fn told(places: Vec<Place>, wanted: &str) -> Vec<String> {
        rollout(places, wanted).into_iter().map(|(name, version)| format!("{name}={version}")).collect()
    }

    #[test]
    fn regions_get_a_version_one_after_the_other() {
        let at = |a, b, c| vec![place("a", 1, a, true), place("b", 0, b, true), place("c", 1, c, true)];
        assert_eq!(told(at("", "", ""), "1"), ["a=1", "b=1", "c=1"], "there is nothing to lose");
        assert_eq!(told(at("1", "1", "1"), "2"), ["a=1", "b=2", "c=1"]);
        assert_eq!(told(at("1", "2", "1"), "2"), ["a=2", "b=2", "c=1"]);
        assert_eq!(told(at("2", "2", "1"), "2"), ["a=2", "b=2", "c=2"]);
        assert_eq!(told(at("2", "2", "1"), "1"), ["a=2", "b=1", "c=1"], "and back");
    }

    #[test]
    fn a_region_that_is_not_ready_keeps_the_others_where_they_are() {
        let mut places = vec![place("a", 0, "2", false), place("b", 1, "1", true), place("c", 2, "", true)];
        assert_eq!(told(places.clone(), "2"), ["a=2", "b=1", "c=2"]);
        places[0].runs = Some("1".to_owned());
        places[0].is_ready = true;
        assert_eq!(told(places, "2")[..2], ["a=2", "b=1"]);
    }
}
