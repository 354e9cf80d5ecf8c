-- What a host knows, given back to a Redis that lacks it. Of two words about the same value the later stays.
--
-- KEYS  as in change.lua
-- ARGV  channel, most records, the history that the host saw here, the version up to which it knows its own,
--       then for each record: field, made, said, end in ms ("": never)
-- Reply the history here now; nothing was done if it is not the one that the host saw
local records, changes, ends = KEYS[1], KEYS[2], KEYS[3]
local channel, most, saw, known = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local history = redis.call('HGET', records, 'history') or ''
if history ~= saw then
  return history
end
local version = math.max(now, known, tonumber(redis.call('HGET', records, 'version') or '0'))
if history == '' then
  history = string.format('%.0f', version)
end
for i = 5, #ARGV, 4 do
  local field, made, said, till = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local before = redis.call('HGET', records, field)
  local later = not before or tonumber(string.match(before, '^%d+ (%d+) ')) < tonumber(made)
  local room = before or redis.call('ZCARD', changes) < most
  if later and room then
    version = version + 1
    local number = string.format('%.0f', version)
    redis.call('HSET', records, field, number .. ' ' .. made .. ' ' .. said)
    redis.call('ZADD', changes, number, field)
    if till == '' then
      redis.call('ZREM', ends, field)
    else
      redis.call('ZADD', ends, till, field)
    end
  end
end
local floor = math.max(known, tonumber(redis.call('HGET', records, 'floor') or '0'))
local number = string.format('%.0f', version)
redis.call('HSET', records, 'history', history, 'version', number, 'floor', string.format('%.0f', floor))
redis.call('PUBLISH', channel, number)
return history
