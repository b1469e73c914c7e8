use std::sync::Arc;

use bytes::Bytes;
use gatewright_control::compress::Coding;
use parking_lot::Mutex;

use super::{Growing, Rendered};

/// The body of a stored response in content codings. They are made when they are first asked for, and kept in memory
/// beside it, whose bound they count against.
#[derive(Debug, Default)]
pub(crate) struct Forms([Option<Form>; Coding::ALL.len()]);

/// A body in a content coding.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) body: Bytes,
    pub(crate) rendered: Rendered,
}

/// The codings of a response that are being made, read meanwhile by all who want them.
#[derive(Debug, Default)]
pub(crate) struct Making([Mutex<Option<Arc<Growing>>>; Coding::ALL.len()]);

impl Form {
    fn new(body: Bytes) -> Self {
        Self { body, rendered: Rendered::default() }
    }
}

impl Forms {
    pub(crate) fn get(&self, coding: Coding) -> Option<&Form> {
        self.0[coding as usize].as_ref()
    }

    /// The same with one more.
    pub(super) fn with(&self, coding: Coding, body: Bytes) -> Self {
        let mut forms = self.again();
        forms.0[coding as usize] = Some(Form::new(body));
        forms
    }

    /// The same for a response with other fields.
    pub(super) fn again(&self) -> Self {
        Self(self.0.each_ref().map(|form| Some(Form::new(form.as_ref()?.body.clone()))))
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().flatten().map(|form| form.body.len()).sum()
    }
}

impl Making {
    /// The one that is being made, or that `begin` begins to make.
    pub(crate) fn get_or(
        &self,
        coding: Coding,
        begin: impl FnOnce() -> Option<Arc<Growing>>,
    ) -> Option<Arc<Growing>> {
        let mut place = self.0[coding as usize].lock();
        if place.is_none() {
            *place = begin();
        }
        place.clone()
    }

    /// It is made, or will not be.
    pub(crate) fn done(&self, coding: Coding) {
        *self.0[coding as usize].lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_made_once_for_all_who_want_it_meanwhile() {
        let making = Making::default();
        let mut begun = 0;
        let mut ask = |coding| {
            making.get_or(coding, || {
                begun += 1;
                Some(Arc::default())
            })
        };
        let (first, second) = (ask(Coding::Br).unwrap(), ask(Coding::Br).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &ask(Coding::Gzip).unwrap()), "another is another");
        making.done(Coding::Br);
        assert!(!Arc::ptr_eq(&first, &ask(Coding::Br).unwrap()), "it is made anew");
        assert_eq!(begun, 3);
        assert!(making.get_or(Coding::Zstd, || None).is_none());
    }
}
