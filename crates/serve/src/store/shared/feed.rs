//! What other gateways tell, and the connection kept up for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::{ErrorKind, RedisError, RedisResult, Value};
use serde::{Deserialize, Serialize};

use super::super::purge::RECENT;
use super::{Purge, Shared, Store, scripts};

/// How long it may take to connect and to hear what was missed.
const SETTING_UP: Duration = Duration::from_secs(5);
/// Purges that are read together.
const PAGE: usize = 512;

/// A purge, as gateways tell it.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    /// Who.
    from: String,
    purge: Purge,
    /// Whether it stands in the stream too.
    logged: bool,
}

/// Keeps the connection up, and follows what is told, until the store is gone.
pub(super) async fn follow(shared: Arc<Shared>, store: Weak<Store>) {
    let mut tries = 0_u64;
    loop {
        let late = || RedisError::from((ErrorKind::Io, "it does not answer in time"));
        let connected = tokio::time::timeout(SETTING_UP, connect(&shared, &store)).await;
        match connected.unwrap_or_else(|_| Err(late())) {
            Ok(Some(told)) => {
                tracing::info!(server = shared.link.server(), "the shared tier is used");
                tries = 0;
                tokio::select! {
                    () = listen(&shared, &store, told) => shared.link.give_up(),
                    () = shared.link.broken() => {}
                }
                tracing::warn!(
                    server = shared.link.server(),
                    "the shared tier is given up for now"
                );
            }
            Ok(None) => return,
            Err(error) => {
                shared.link.not_connected();
                tries += 1;
                if tries.is_power_of_two() {
                    let (server, kind) = (shared.link.server(), error.kind());
                    tracing::warn!(server, ?kind, tries, "the shared tier does not answer");
                }
            }
        }
        shared.link.rested().await;
    }
}

/// Connects, hears what was missed, tells what could not be told, and then lets requests use it. `None` if nobody
/// is there who would.
async fn connect(shared: &Shared, store: &Weak<Store>) -> RedisResult<Option<PubSub>> {
    let (mut connection, mut told) = shared.link.connect().await?;
    told.subscribe(scripts::PURGED).await?;
    told.subscribe(scripts::FILLED).await?;
    let Some(store) = store.upgrade() else { return Ok(None) };
    catch_up(shared, &store, &mut connection).await?;
    // If it is full, they stay pending.
    if let Err(error) = tell(shared, &mut connection).await
        && error.is_unrecoverable_error()
    {
        return Err(error);
    }
    shared.link.take_up(connection);
    Ok(Some(told))
}

/// Follows until the connection breaks.
async fn listen(shared: &Shared, store: &Weak<Store>, mut told: PubSub) {
    let mut messages = told.on_message();
    while let Some(message) = messages.next().await {
        let Some(store) = store.upgrade() else { return };
        let Ok(text) = message.get_payload::<String>() else { continue };
        if message.get_channel_name() == scripts::FILLED {
            // Nobody may wait for it.
            drop(shared.filled.send(text.into()));
            continue;
        }
        let Ok(Told { from, purge, logged }) = serde_json::from_str(&text) else { continue };
        if logged {
            let Some(mut connection) = shared.link.connection() else { return };
            if catch_up(shared, &store, &mut connection).await.is_err() {
                return;
            }
        } else if from != shared.name {
            // The stream is full: whoever can writes it there later.
            shared.note_pending(purge.clone());
            store.purge_untold(purge);
        }
    }
}

/// Hears of the purges in the stream that are new here.
pub(super) async fn catch_up(
    shared: &Shared,
    store: &Store,
    connection: &mut MultiplexedConnection,
) -> RedisResult<()> {
    loop {
        let last = store.marks().shared;
        let after = format!("({}-{}", last.0, last.1);
        let page: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
            .arg(scripts::PURGES)
            .arg(&after)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE)
            .query_async(connection)
            .await?;
        if last == (0, 0) && page.len() == PAGE {
            let length: usize =
                redis::cmd("XLEN").arg(scripts::PURGES).query_async(connection).await?;
            if length >= RECENT
                && let Some(first) = page.first().and_then(|(id, _)| mark(id))
            {
                store.forget_shared_until(first);
            }
        }
        for (id, fields) in &page {
            let Some(mark) = mark(id) else { continue };
            let told = fields.get(1).and_then(|text| serde_json::from_str::<Told>(text).ok());
            if let Some(Told { from, purge, .. }) = told {
                store.purged_elsewhere(mark, purge, from == shared.name);
            }
        }
        if page.len() < PAGE {
            return Ok(());
        }
    }
}

/// Tells the others what is pending.
pub(super) async fn tell(
    shared: &Shared,
    connection: &mut (impl ConnectionLike + Send),
) -> RedisResult<()> {
    loop {
        let Some(purge) = shared.pending.lock().first().cloned() else { return Ok(()) };
        let told = |logged| {
            let told = Told { from: shared.name.clone(), purge: purge.clone(), logged };
            serde_json::to_string(&told).expect("strings are always JSON")
        };
        let mut both = redis::pipe();
        both.cmd("XADD").arg(scripts::PURGES).arg("MAXLEN").arg(RECENT).arg("*");
        both.arg("p").arg(told(true));
        both.cmd("PUBLISH").arg(scripts::PURGED).arg(told(true));
        if let Err(error) = both.query_async::<(String, Value)>(connection).await {
            if !error.is_unrecoverable_error() {
                // It has no room for it; memories can hear of it all the same.
                let mut alone = redis::cmd("PUBLISH");
                alone.arg(scripts::PURGED).arg(told(false));
                let _heard: Value = alone.query_async(connection).await?;
            }
            return Err(error);
        }
        shared.pending.lock().retain(|other| *other != purge);
    }
}

/// Id of an entry of a stream.
pub(super) fn mark(id: &str) -> Option<(u64, u64)> {
    let (time, number) = id.split_once('-')?;
    Some((time.parse().ok()?, number.parse().ok()?))
}
