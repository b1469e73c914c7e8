use std::sync::Arc;

use gatewright_control::cache::CacheStatus;
use http::HeaderMap;
use parking_lot::Mutex;

/// The header fields of the last answer that was made of a stored response. Age and remaining lifetime are whole
/// seconds, so all answers of a second have the same ones.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    age: Option<u64>,
    status: CacheStatus,
    fields: Arc<HeaderMap>,
}

impl Rendered {
    /// The fields for this age, if it is said, and status; they are made if the last ones were for others.
    pub(crate) fn fields(
        &self,
        age: Option<u64>,
        status: CacheStatus,
        make: impl FnOnce() -> HeaderMap,
    ) -> Arc<HeaderMap> {
        let mut last = self.last.lock();
        match &*last {
            Some(same) if same.age == age && same.status == status => Arc::clone(&same.fields),
            _ => {
                let fields = Arc::new(make());
                *last = Some(Last { age, status, fields: Arc::clone(&fields) });
                fields
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_made_anew_when_age_or_status_are_others() {
        let rendered = Rendered::default();
        let mut made = 0;
        for (age, ttl) in [(1, 9), (1, 9), (2, 8), (2, 8), (2, 7), (1, 9)] {
            let age = Some(age);
            let mut make = || {
                made += 1;
                HeaderMap::new()
            };
            rendered.fields(age, CacheStatus::hit(ttl), &mut make);
        }
        assert_eq!(made, 4);
    }
}
