//! Benchmarks that are part of the program, as files that a user may save and change.

/// A benchmark by its name.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// The file, which begins with what it is.
    pub text: &'static str,
}

/// All of them. They name no server: that is the user's to say.
pub const BUILTIN: [Builtin; 8] = [
    Builtin { name: "chat", text: include_str!("chat.toml") },
    Builtin { name: "conversation", text: include_str!("conversation.toml") },
    Builtin { name: "rag", text: include_str!("rag.toml") },
    Builtin { name: "long-context", text: include_str!("long-context.toml") },
    Builtin { name: "summarise", text: include_str!("summarise.toml") },
    Builtin { name: "code", text: include_str!("code.toml") },
    Builtin { name: "reasoning", text: include_str!("reasoning.toml") },
    Builtin { name: "embeddings", text: include_str!("embeddings.toml") },
];

impl Builtin {
    /// The benchmark of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        BUILTIN.iter().find(|one| one.name == name)
    }

    /// What it is, in lines.
    pub fn description(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.text.lines().map_while(|line| line.strip_prefix("# "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scenario;

    #[test]
    fn each_can_be_carried_out_once_it_has_a_server() {
        for one in &BUILTIN {
            let mut scenario: Scenario = toml::from_str(one.text).unwrap();
            assert_eq!(scenario.name, one.name);
            assert!(one.description().next().unwrap().len() > 40, "{}", one.name);
            let error = scenario.prepare(std::path::Path::new(""), &|_| None).unwrap_err();
            assert!(error.to_string().contains("no URL"), "{}: {error}", one.name);
            scenario.target[0].url = "http://localhost:1".to_owned();
            let prepared = scenario.prepare(std::path::Path::new(""), &|_| None);
            prepared.unwrap_or_else(|error| panic!("{}: {error}", one.name));
        }
        assert!(Builtin::named("rag").is_some() && Builtin::named("none").is_none());
    }
}
