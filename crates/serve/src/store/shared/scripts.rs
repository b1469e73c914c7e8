//! What is carried out on the server as a whole.

use std::sync::LazyLock;

use redis::Script;

/// The purges of late.
pub(super) const PURGES: &str = "gatewright:purges";
/// The last token.
pub(super) const FENCE: &str = "gatewright:fence";
/// Channel where keys are told that somebody has ended to fetch.
pub(super) const FILLED: &str = "gatewright:filled";
/// Channel where purges are told.
pub(super) const PURGED: &str = "gatewright:purged";
/// Field of an entry that holds the token it was written under.
pub(super) const FENCE_FIELD: &str = "fence";

/// Takes the lease of a key (1) for so many milliseconds, with a token that is above all before it (2). 0 if it is
/// taken.
pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
         local token = redis.call('INCR', KEYS[2])
         redis.call('SET', KEYS[1], token, 'NX', 'PX', ARGV[1])
         return token",
    )
});

/// Keeps a lease (1) of this token for so many milliseconds more.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// Ends a lease (1) of this token, and says so. If nothing of the key can be stored, that is remembered (2) for so
/// many milliseconds.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
         redis.call('PUBLISH', ARGV[2], ARGV[3])
         if ARGV[4] ~= '0' then redis.call('SET', KEYS[2], '1', 'PX', ARGV[4]) end",
    )
});

/// Writes a variant of an entry (1), unless somebody with a later token has, keeps the entry at least so long, and
/// ends the lease (2). Token 0 is of one who needed none. 1 if it was written.
pub(super) static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local token = tonumber(ARGV[4])
         local written = 0
         if token == 0 or token >= tonumber(redis.call('HGET', KEYS[1], 'fence') or '0') then
           if redis.call('HLEN', KEYS[1]) > 32 then redis.call('DEL', KEYS[1]) end
           redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
           if token > 0 then redis.call('HSET', KEYS[1], 'fence', token) end
           if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
             redis.call('PEXPIRE', KEYS[1], ARGV[3])
           end
           redis.call('DEL', KEYS[3])
           written = 1
         end
         if token > 0 and redis.call('GET', KEYS[2]) == ARGV[4] then redis.call('DEL', KEYS[2]) end
         redis.call('PUBLISH', ARGV[5], ARGV[6])
         return written",
    )
});

pub(super) fn entry(key: &str) -> String {
    format!("gatewright:entry:{key}")
}

pub(super) fn lease(key: &str) -> String {
    format!("gatewright:lease:{key}")
}

pub(super) fn pass(key: &str) -> String {
    format!("gatewright:pass:{key}")
}
