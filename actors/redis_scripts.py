"""The Lua scripts behind the queue. Each is one atomic step; time is the server's own.

Keys per organization: a list of ids (left is the tail, right the head), ``inflight`` and ``delayed`` sorted sets scored by
milliseconds, one ``parked`` sorted set a channel, and an ``events`` stream that lets a listener catch up. ``active`` is a
sorted set of organizations, scored by when each next needs attention. ``allow-oom`` lets claims and settlements through when
memory is full: they free it. Parked ids all score 0, so they stand in the order of their names, which is the order of their
creation; as a list they could not be told apart from lost ones without a search, and would be put back, and parked again, at
every look.
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

ENQUEUE = Script(
    _NOW
    + _ANNOUNCE
    + _PUSH
    + """
-- KEYS: queue, active, events. ARGV: organization, topic, wake topic, number of ids, ids..., announcements...
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
    + """
-- KEYS: queue, inflight, delayed, parked sets to look at. ARGV: how many, lease in ms.
-- Returns {ids, left in the queue, ms until the next delayed or -1, whether there is each of the parked sets}.
local now = now_ms()
local n = tonumber(ARGV[1])
for _, key in ipairs({KEYS[2], KEYS[3]}) do
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, 1000)
  if #due > 0 then
    redis.call('ZREM', key, unpack(due))
    for i = #due, 1, -1 do redis.call('RPUSH', KEYS[1], due[i]) end
  end
end
local ids = redis.call('RPOP', KEYS[1], n) or {}
local scored = {}
for i = 1, #ids do
  scored[#scored + 1] = now + ARGV[2]
  scored[#scored + 1] = ids[i]
  if i % 1000 == 0 or i == #ids then
    redis.call('ZADD', KEYS[2], unpack(scored))
    scored = {}
  end
end
local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local due_ms = -1
if #first > 0 then due_ms = math.max(0, math.ceil(first[2] - now)) end
local parked = {}
for i = 4, #KEYS do parked[i - 3] = redis.call('EXISTS', KEYS[i]) end
return {ids, redis.call('LLEN', KEYS[1]), due_ms, parked}
"""
)

SETTLE = Script(
    "#!lua flags=allow-oom\n"
    + _NOW
    + _ANNOUNCE
    + """
-- KEYS: queue, inflight, delayed, events, active, parked sets in the order of the parked ids.
-- ARGV: organization, topic, wake topic, counts of done, delayed, requeued, parked; then the ids (delayed as ms, id); then
-- announcements.
local done, delayed, requeued, parked = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local at = 8
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
    redis.call('ZREM', KEYS[2], ARGV[at + 1])
    redis.call('ZADD', KEYS[3], due, ARGV[at + 1])
    redis.call('ZADD', KEYS[5], 'LT', due, ARGV[1])
    at = at + 2
  end
end
-- An id that is no longer in flight was rescued meanwhile and stands in the queue already.
for i = at + requeued - 1, at, -1 do
  if redis.call('ZREM', KEYS[2], ARGV[i]) == 1 then redis.call('RPUSH', KEYS[1], ARGV[i]) end
end
-- Handed back, perhaps by a process that is about to leave: another one may take them at once.
if requeued > 0 then
  redis.call('ZADD', KEYS[5], 'LT', now_ms(), ARGV[1])
  redis.call('PUBLISH', ARGV[3], ARGV[1])
end
at = at + requeued
for i = 0, parked - 1 do
  if redis.call('ZREM', KEYS[2], ARGV[at + i]) == 1 then redis.call('ZADD', KEYS[6 + i], 0, ARGV[at + i]) end
end
at = at + parked
announce(KEYS[4], ARGV[2], at, #ARGV)
return 1
"""
)

UNPARK = Script(
    "#!lua flags=allow-oom\n"
    """
-- KEYS: queue, parked. ARGV: how many. Returns {moved, left}.
local scored = redis.call('ZPOPMIN', KEYS[2], ARGV[1])
for i = #scored - 1, 1, -2 do redis.call('RPUSH', KEYS[1], scored[i]) end
return {#scored / 2, redis.call('ZCARD', KEYS[2])}
"""
)

RETIRE = Script(
    "#!lua flags=allow-oom\n"
    + _NOW
    + """
-- KEYS: queue, inflight, delayed, active, parked sets. ARGV: organization, ms after which parked ids want another look.
if redis.call('LLEN', KEYS[1]) > 0 then return 0 end
local due = nil
for i = 2, 3 do
  local first = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if #first > 0 and (due == nil or tonumber(first[2]) < due) then due = tonumber(first[2]) end
end
for i = 5, #KEYS do
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
-- KEYS: queue, inflight, delayed, active, parked sets. ARGV: organization, wake topic, ms after which parked ids want another
-- look, ids oldest first. Returns how many were missing.
-- Ids begin with their millisecond (13 characters) and the queue is first in, first out: one not older than its head may still
-- stand in it. It is left alone until the head has passed it, so the list is never searched. A repeat would do no harm: the gate
-- lets each id through once.
local head = redis.call('LINDEX', KEYS[1], -1)
local head_ms = head and string.sub(head, 1, 13)
local missing = 0
for i = #ARGV, 4, -1 do
  local id = ARGV[i]
  local present = head_ms and head_ms <= string.sub(id, 1, 13)
  for k = 2, #KEYS do
    present = present or (k ~= 4 and redis.call('ZSCORE', KEYS[k], id))
  end
  if not present then
    redis.call('RPUSH', KEYS[1], id)
    missing = missing + 1
  end
end
-- What is present is found only through the active ones, which may have been lost as well.
local due = nil
local function attend(at)
  if due == nil or at < due then due = at end
end
if redis.call('LLEN', KEYS[1]) > 0 then attend(now_ms()) end
for i = 2, 3 do
  local first = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if #first > 0 then attend(tonumber(first[2])) end
end
for i = 5, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then attend(now_ms() + ARGV[3]) end
end
local sooner = due and redis.call('ZADD', KEYS[4], 'LT', 'CH', due, ARGV[1]) == 1
if missing > 0 or (sooner and due <= now_ms()) then redis.call('PUBLISH', ARGV[2], ARGV[1]) end
return missing
"""
)
