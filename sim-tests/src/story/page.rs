//! The story of a run as one HTML page that needs nothing else: what it shows is data within it.

use serde::Serialize;

use super::{PoisonError, Story, Told};

/// What stands above the picture.
#[derive(Serialize)]
pub(crate) struct Heading {
    /// The command that repeats the run.
    pub(crate) command: String,
    /// The commit at which it was made.
    pub(crate) commit: String,
    /// What did not hold, with what was seen first.
    pub(crate) violations: Vec<(String, String)>,
    /// The plan.
    pub(crate) plan: serde_json::Value,
    /// The chain hash over all events.
    pub(crate) chain: String,
}

/// Where the data go.
const PLACE: &str = "/*STORY*/null";

/// The page.
pub(crate) fn page(heading: &Heading, story: &Story) -> String {
    #[derive(Serialize)]
    struct Whole<'a> {
        heading: &'a Heading,
        #[serde(flatten)]
        told: &'a Told,
    }
    let nothing = Told::default();
    let told = story.told.as_ref().map(|told| told.lock().unwrap_or_else(PoisonError::into_inner));
    let whole = Whole { heading, told: told.as_deref().unwrap_or(&nothing) };
    let data = serde_json::to_string(&whole).expect("a story is data");
    // Nothing in it ends the script that it stands in.
    include_str!("page.html").replacen(PLACE, &data.replace("</", "<\\/"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_the_script_that_it_stands_in() {
        let heading = Heading {
            command: "cargo sim replay 1".to_owned(),
            commit: "1a2b3c4".to_owned(),
            violations: vec![("NoPanic".to_owned(), "</script><b>".to_owned())],
            plan: serde_json::Value::Null,
            chain: String::new(),
        };
        let page = page(&heading, &Story::default());
        assert!(page.contains("<\\/script><b>"), "the text is in it");
        assert_eq!(page.matches("</script>").count(), 1, "and one script ends");
        assert!(!page.contains(PLACE));
    }
}
