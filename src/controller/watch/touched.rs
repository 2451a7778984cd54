//! What a watch tells of, once its store has it.

use futures::{Stream, StreamExt as _, stream};
use kube::runtime::watcher::{self, Event};

/// Names what has changed or is gone, and all of a list as soon as that is complete: the store takes a list over as one, and whoever looked before would
/// see what was there until then. `name` is asked at once, so that no list is kept twice.
pub(super) fn touched<K, N>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    name: impl Fn(K) -> N,
) -> impl Stream<Item = watcher::Result<N>> {
    let mut listed = Vec::new();
    let names = events.map(move |event| {
        Ok(match event? {
            Event::Apply(object) | Event::Delete(object) => vec![name(object)],
            Event::Init => {
                listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                listed.push(name(object));
                Vec::new()
            }
            Event::InitDone => std::mem::take(&mut listed),
        })
    });
    names.flat_map(|names| match names {
        Ok(names) => stream::iter(names.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::channel::mpsc;

    use super::*;

    #[test]
    fn what_is_listed_is_named_when_the_list_is_complete_and_not_before() {
        let (events, come) = mpsc::unbounded();
        let mut named = touched(come, |n: u32| n * 10);
        let mut heard = |event: Event<u32>| {
            events.unbounded_send(Ok(event)).unwrap();
            std::iter::from_fn(|| named.next().now_or_never().flatten().map(Result::unwrap)).collect::<Vec<_>>()
        };
        assert_eq!(heard(Event::Apply(1)), [10]);
        // A list that breaks off, and begins anew.
        let told: Vec<Vec<u32>> =
            [Event::Init, Event::InitApply(2), Event::Init, Event::InitApply(3), Event::InitApply(4)].map(&mut heard).into();
        assert_eq!(told.concat(), [0; 0]);
        assert_eq!(heard(Event::InitDone), [30, 40]);
        assert_eq!(heard(Event::Delete(3)), [30]);
    }
}
