//! What the README says of the settings is what their declarations say.

use crate::settings::declared;
use crate::support::data::root;
use showtell::model::MODELS;
use showtell::settings::Kind;
use std::collections::HashSet;
use std::fs;

const BEGIN: &str =
    "<!-- settings: tests/settings_readme.rs compares this table with the declarations -->\n";
const END: &str = "<!-- end of settings -->\n";

#[test]
fn the_readme_names_the_settings_that_may_change() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(path).unwrap();
    let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, rest) = readme
        .split_once("When a run is resumed, only ")
        .expect("the README says what may change");
    let (named, _) = rest.split_once(" can change.").unwrap();
    let named: HashSet<&str> = named.split('`').skip(1).step_by(2).collect();
    let declared = declared().filter(|setting| setting.may_change);
    assert_eq!(named, declared.map(|setting| setting.key).collect());
}

/// The README's table: a row for each setting, under its headings.
fn readme_table() -> String {
    let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
    let mut table = format!(
        "| flag | {} | meaning |\n|---|{}---|\n",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    let mut heading = "";
    for setting in declared() {
        if setting.heading != heading {
            heading = setting.heading;
            table += &format!("| **{heading}** |{} |\n", " |".repeat(names.len()));
        }
        let defaults = MODELS.iter().map(|model| {
            let of_other = MODELS.iter().any(|other| {
                other != model && other.settings.iter().any(|own| own.key == setting.key)
            });
            match (model.default_of(setting), setting.kind) {
                (Some(_), _) if of_other => "–".to_string(),
                (Some("true"), Kind::Switch { .. }) => "on".into(),
                (Some("false"), Kind::Switch { .. }) => "off".into(),
                (Some(default), _) => default.into(),
                (None, _) => String::new(),
            }
        });
        let defaults: Vec<String> = defaults.collect();
        let flag = match setting.kind {
            Kind::Switch { .. } => format!("`--{0}`, `--no-{0}`", setting.key),
            _ => format!("`--{}`", setting.key),
        };
        table += &format!(
            "| {flag} | {} | {} |\n",
            defaults.join(" | "),
            setting.help()
        );
    }
    table
}

#[test]
fn the_table_in_the_readme_is_made_from_the_declarations() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme
        .split_once(BEGIN)
        .expect("the README has the first marker");
    let (found, after) = rest
        .split_once(END)
        .expect("the README has the second marker");
    let expected = readme_table();
    if std::env::var_os("SHOWTELL_WRITE_README").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    assert!(
        found == expected,
        "the README's table of settings is not that of the declarations. To write it anew: \
         SHOWTELL_WRITE_README=1 cargo test --test all readme"
    );
}
