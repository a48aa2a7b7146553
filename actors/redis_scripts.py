"""The Lua scripts behind the queue. Each is one atomic step; time is the server's own.

Keys per organization: two lists of ids (left is the tail, right the head), the second for the bulk lane, ``inflight`` and
``delayed`` sorted sets scored by milliseconds, one ``parked`` sorted set a channel, and an ``events`` stream that lets a listener
catch up. ``active`` is a sorted set of organizations, scored by when each next needs attention. ``allow-oom`` lets claims and
settlements through when memory is full: they free it. Parked ids all score 0, so they stand in the order of their names, which is
the order of their creation; as a list they could not be told apart from lost ones without a search, and would be put back, and
parked again, at every look.

An id of the bulk lane is told by its score wherever it has one: half a millisecond more, and 1 where others are parked with 0. So
it goes back to its own list, and a release that does not know of lanes reads the same sets: it puts what it takes there into the
one list it knows. While both lanes wait, every tenth id is one of bulk, counted through all claims.
"""

from __future__ import annotations

from actors.io.redis import Script

_NOW = """
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
"""

# Announcements go to the stream first: its entry id is the position a listener resumes from. A thousand entries or ten minutes
# of silence bound what a stream may hold.
_ANNOUNCE = """
local function announce(stream, topic, first, last)
  if first > last then return end
  for i = first, last do
    local id = redis.call('XADD', stream, 'MAXLEN', '~', 1000, '*', 'e', ARGV[i])
    redis.call('PUBLISH', topic, id .. ' ' .. ARGV[i])
  end
  redis.call('EXPIRE', stream, 600)
end
"""

_PUSH = """
local function push(command, key, first, last)
  while first <= last do
    local upto = math.min(first + 999, last)
    redis.call(command, key, unpack(ARGV, first, upto))
    first = upto + 1
  end
end
"""

# Of so many ids, while both lanes wait, these are for bulk: one in ten, whatever the sizes of the claims.
_SHARE = """
local function bulk_share(key, name, n)
  local total = redis.call('HINCRBY', key, name, n)
  redis.call('EXPIRE', key, 86400)
  return math.floor(total / 10) - math.floor((total - n) / 10)
end
"""

ENQUEUE = Script(
    _NOW
    + _ANNOUNCE
    + _PUSH
    + """
-- KEYS: queue of a lane, active, events. ARGV: organization, topic, wake topic, number of ids, ids..., announcements...
local n = tonumber(ARGV[4])
-- What may be refused comes first, so that an arrival that is refused has left nothing behind and may be repeated.
local was = redis.call('LLEN', KEYS[1])
redis.call('ZADD', KEYS[2], 'LT', now_ms(), ARGV[1])
push('LPUSH', KEYS[1], 5, 4 + n)
if was == 0 then redis.call('PUBLISH', ARGV[3], ARGV[1]) end
announce(KEYS[3], ARGV[2], 5 + n, #ARGV)
return was
"""
)

CLAIM = Script(
    "#!lua flags=allow-oom\n"
    + _NOW
    + _SHARE
    + """
-- KEYS: queue, bulk, inflight, delayed, turns, parked sets to look at. ARGV: how many, lease in ms.
-- Returns {ids, left in both queues, ms until the next delayed or -1, whether there is each of the parked sets}.
local now = now_ms()
local n = tonumber(ARGV[1])
local function put_back(key)
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1000)
  if #due == 0 then return end
  local ids = {}
  for i = #due - 1, 1, -2 do
    redis.call('RPUSH', due[i + 1] % 1 == 0 and KEYS[1] or KEYS[2], due[i])
    ids[#ids + 1] = due[i]
  end
  redis.call('ZREM', key, unpack(ids))
end
put_back(KEYS[3])
local first = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
if #first > 0 and tonumber(first[2]) <= now then
  put_back(KEYS[4])
  first = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
end
local bulk = redis.call('LLEN', KEYS[2])
local from_bulk = 0
if bulk > 0 and n > 0 then
  local waiting = redis.call('LLEN', KEYS[1])
  local share = waiting > 0 and bulk_share(KEYS[5], 'claim', n) or 0
  from_bulk = math.min(bulk, math.max(share, n - waiting))
end
local claimed = {}
local function take(key, count, until_ms)
  local ids = redis.call('RPOP', key, count) or {}
  local scored = {}
  for i = 1, #ids do
    scored[#scored + 1] = until_ms
    scored[#scored + 1] = ids[i]
    if i % 1000 == 0 or i == #ids then
      redis.call('ZADD', KEYS[3], unpack(scored))
      scored = {}
    end
  end
  if #claimed == 0 then
    claimed = ids
  else
    for i = 1, #ids do claimed[#claimed + 1] = ids[i] end
  end
end
if n > from_bulk then take(KEYS[1], n - from_bulk, now + ARGV[2]) end
if from_bulk > 0 then take(KEYS[2], from_bulk, now + ARGV[2] + 0.5) end
local due_ms = -1
if #first > 0 then due_ms = math.max(0, math.ceil(first[2] - now)) end
local parked = {}
for i = 6, #KEYS do parked[i - 5] = redis.call('EXISTS', KEYS[i]) end
return {claimed, redis.call('LLEN', KEYS[1]) + bulk - from_bulk, due_ms, parked}
"""
)

SETTLE = Script(
    "#!lua flags=allow-oom\n"
    + _NOW
    + _ANNOUNCE
    + """
-- KEYS: queue, inflight, delayed, events, active, bulk, parked sets in the order of the parked ids.
-- ARGV: organization, topic, wake topic, counts of done, delayed, requeued, parked, what more a delayed one scores that is not in
-- flight; then the ids (delayed as ms, id); then announcements.
local done, delayed, requeued, parked = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local at = 9
local last = at + done - 1
while at <= last do
  local upto = math.min(at + 999, last)
  redis.call('ZREM', KEYS[2], unpack(ARGV, at, upto))
  at = upto + 1
end
if delayed > 0 then
  local now = now_ms()
  for _ = 1, delayed do
    local due = now + ARGV[at]
    local until_ms = redis.call('ZSCORE', KEYS[2], ARGV[at + 1])
    redis.call('ZREM', KEYS[2], ARGV[at + 1])
    redis.call('ZADD', KEYS[3], due + (until_ms and until_ms % 1 or ARGV[8]), ARGV[at + 1])
    redis.call('ZADD', KEYS[5], 'LT', due, ARGV[1])
    at = at + 2
  end
end
-- An id that is no longer in flight was rescued meanwhile and stands in the queue already.
for i = at + requeued - 1, at, -1 do
  local until_ms = redis.call('ZSCORE', KEYS[2], ARGV[i])
  if until_ms then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('RPUSH', until_ms % 1 == 0 and KEYS[1] or KEYS[6], ARGV[i])
  end
end
-- Handed back, perhaps by a process that is about to leave: another one may take them at once.
if requeued > 0 then
  redis.call('ZADD', KEYS[5], 'LT', now_ms(), ARGV[1])
  redis.call('PUBLISH', ARGV[3], ARGV[1])
end
at = at + requeued
for i = 0, parked - 1 do
  local until_ms = redis.call('ZSCORE', KEYS[2], ARGV[at + i])
  if until_ms then
    redis.call('ZREM', KEYS[2], ARGV[at + i])
    redis.call('ZADD', KEYS[7 + i], until_ms % 1 == 0 and 0 or 1, ARGV[at + i])
  end
end
at = at + parked
announce(KEYS[4], ARGV[2], at, #ARGV)
return 1
"""
)

UNPARK = Script(
    "#!lua flags=allow-oom\n"
    + _SHARE
    + """
-- KEYS: queue, parked, bulk, turns. ARGV: how many, lane. Returns {moved, left}.
local n = tonumber(ARGV[1])
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
local bulk = {}
if n > 0 and #last > 0 and tonumber(last[2]) > 0 then
  local waiting = redis.call('ZCOUNT', KEYS[2], 0, 0)
  local share = waiting > 0 and bulk_share(KEYS[4], ARGV[2], n) or 0
  bulk = redis.call('ZRANGEBYSCORE', KEYS[2], 1, 1, 'LIMIT', 0, math.max(share, n - waiting))
  for i = #bulk, 1, -1 do
    redis.call('RPUSH', KEYS[3], bulk[i])
    redis.call('ZREM', KEYS[2], bulk[i])
  end
end
local scored = redis.call('ZPOPMIN', KEYS[2], n - #bulk)
for i = #scored - 1, 1, -2 do redis.call('RPUSH', KEYS[1], scored[i]) end
return {#scored / 2 + #bulk, redis.call('ZCARD', KEYS[2])}
"""
)

RETIRE = Script(
    "#!lua flags=allow-oom\n"
    + _NOW
    + """
-- KEYS: queue, inflight, delayed, active, bulk, parked sets. ARGV: organization, ms after which parked ids want another look.
if redis.call('LLEN', KEYS[1]) > 0 or redis.call('LLEN', KEYS[5]) > 0 then return 0 end
local due = nil
for i = 2, 3 do
  local first = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if #first > 0 and (due == nil or tonumber(first[2]) < due) then due = tonumber(first[2]) end
end
for i = 6, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local look = now_ms() + ARGV[2]
    if due == nil or look < due then due = look end
  end
end
if due == nil then redis.call('ZREM', KEYS[4], ARGV[1]) else redis.call('ZADD', KEYS[4], due, ARGV[1]) end
return 1
"""
)

RESTORE = Script(
    "#!lua flags=allow-oom\n"
    + _NOW
    + """
-- KEYS: queue, inflight, delayed, active, bulk, parked sets. ARGV: organization, wake topic, ms after which parked ids want
-- another look, how many ids are not of the bulk lane, those oldest first, those of the bulk lane oldest first. Returns how many
-- were missing.
-- Ids begin with their millisecond (13 characters) and the queue is first in, first out: one not older than its head may still
-- stand in it. It is left alone until the head has passed it, so the list is never searched. A repeat would do no harm: the gate
-- lets each id through once.
local missing = 0
local function restore(queue, from, to)
  local head = redis.call('LINDEX', queue, -1)
  local head_ms = head and string.sub(head, 1, 13)
  for i = to, from, -1 do
    local id = ARGV[i]
    local present = head_ms and head_ms <= string.sub(id, 1, 13)
    for k = 2, #KEYS do
      present = present or (k ~= 4 and k ~= 5 and redis.call('ZSCORE', KEYS[k], id))
    end
    if not present then
      redis.call('RPUSH', queue, id)
      missing = missing + 1
    end
  end
end
restore(KEYS[1], 5, 4 + ARGV[4])
restore(KEYS[5], 5 + ARGV[4], #ARGV)
-- What is present is found only through the active ones, which may have been lost as well.
local due = nil
local function attend(at)
  if due == nil or at < due then due = at end
end
if redis.call('LLEN', KEYS[1]) > 0 or redis.call('LLEN', KEYS[5]) > 0 then attend(now_ms()) end
for i = 2, 3 do
  local first = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if #first > 0 then attend(tonumber(first[2])) end
end
for i = 6, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then attend(now_ms() + ARGV[3]) end
end
local sooner = due and redis.call('ZADD', KEYS[4], 'LT', 'CH', due, ARGV[1]) == 1
if missing > 0 or (sooner and due <= now_ms()) then redis.call('PUBLISH', ARGV[2], ARGV[1]) end
return missing
"""
)
