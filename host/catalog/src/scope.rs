//! Which instances a list is about.

/// An organization, a project of it, an instance of that; what is absent means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// All organizations where absent.
    pub organization: Option<String>,
    /// All projects where absent.
    pub project: Option<String>,
    /// All instances where absent.
    pub instance: Option<String>,
}

impl Scope {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Reads `organization[/project[/instance]]`; an empty text means all.
    pub fn from_path(path: &str) -> Self {
        let mut parts = path.splitn(3, '/').filter(|part| !part.is_empty()).map(str::to_owned);
        Self { organization: parts.next(), project: parts.next(), instance: parts.next() }
    }

    /// The scope as text, none for everything; what follows an absent part does not count.
    pub(crate) fn path(&self) -> Option<String> {
        let parts = [&self.organization, &self.project, &self.instance];
        let given: Vec<&str> = parts.into_iter().map_while(|part| part.as_deref()).collect();
        (!given.is_empty()).then(|| given.join("/"))
    }
}
