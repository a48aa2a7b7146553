"""The Lua scripts that keep what limits a channel: the record of its last life, and the counter of its quota.

Times are the server's own; a record is stamped by the script that writes it and read with its age, so no process's wall clock has
a say. All of them pass when memory is full: they write a few small keys that are written again and again, and without the counter
nothing could be sent that would free any.
"""

from __future__ import annotations

from actors.io.redis import Script

_NOW = """
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
"""

TAKE_CHANNEL = Script(
    "#!lua flags=allow-oom\n"
    + _NOW
    + """
-- KEYS: provider. ARGV: seconds it is kept. Returns {life, ms since it was written, fields and values}.
-- From here on the tokens of the record are out: until its new owner leaves, it is not clean.
local now = now_ms()
local kept = redis.call('HGETALL', KEYS[1])
local at = tonumber(redis.call('HGET', KEYS[1], 'at_ms') or '') or now
-- Lives are named by their beginning, so that one from before a loss of memory is never taken for one that came after it.
local life = math.max((tonumber(redis.call('HGET', KEYS[1], 'life') or '') or 0) + 1, now)
redis.call('HSET', KEYS[1], 'life', life, 'at_ms', now, 'clean', 0)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return {life, now - at, kept}
"""
)

KEEP_CHANNEL = Script(
    "#!lua flags=allow-oom\n"
    + _NOW
    + """
-- KEYS: provider. ARGV: seconds it is kept, life, fields and values. Returns whether it was the latest life that wrote.
local life = redis.call('HGET', KEYS[1], 'life')
if life and life ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'life', ARGV[2], 'at_ms', now_ms(), unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

ASK_QUOTA = Script(
    "#!lua flags=allow-oom\n"
    + _NOW
    + """
-- KEYS: rate. ARGV: account, units asked for (negative: given back), quota, window in ms, window last heard of, used in it then.
-- The value is "used account"; a window is named by its end in ms. Returns {granted, used, window, ms until its end}.
local now = now_ms()
local used, ends = 0, 0
local held = redis.call('GET', KEYS[1])
if held then
  local count, account = string.match(held, '^(%d+) (.*)$')
  if count and account == ARGV[1] then
    used = tonumber(count)
    ends = redis.call('PEXPIRETIME', KEYS[1])
  end
end
local n, quota, known = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local function keep()
  redis.call('SET', KEYS[1], string.format('%d %s', used, ARGV[1]), 'PXAT', string.format('%d', ends))
end
if n < 0 then
  if ends == known and ends > now then
    used = math.max(0, used + n)
    if used == 0 then redis.call('DEL', KEYS[1]) else keep() end
  end
  return {0, used, ends, math.max(0, ends - now)}
end
-- What the asker knows of a window that still lasts is taken over: the counter may have been lost, and begun anew since.
if known > now then
  used = math.max(used, tonumber(ARGV[6]))
  ends = math.max(ends, known)
end
if ends <= now then used, ends = 0, now + ARGV[4] end
ends = math.min(ends, now + ARGV[4])
local granted = math.max(0, math.min(n, quota - used))
used = used + granted
keep()
return {granted, used, ends, ends - now}
"""
)
