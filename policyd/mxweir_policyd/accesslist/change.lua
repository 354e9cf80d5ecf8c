-- One word of an operator: said, put into the history and told, in one step.
--
-- KEYS  records: a hash, field -> record, and "history", "version", "floor"
--       changes: a sorted set of the fields by version
--       ends: a sorted set of the fields by when they may be forgotten, in ms
-- ARGV  channel, most records, ms that a withdrawal is kept, field, said (JSON), end in ms ("": never),
--       "withdraw" or ""
-- Reply {version, record before}; {"nothing"}: there is nothing to withdraw; {"full"}
local records, changes, ends = KEYS[1], KEYS[2], KEYS[3]
local channel, most, keep, field, said, till, withdraw = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- What is over goes, some of it at each change. Who has not read as far as "floor" may have missed that it was said.
local floor = tonumber(redis.call('HGET', records, 'floor') or '0')
for _, over in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', math.floor(now / 1000), 'LIMIT', 0, 100)) do
  floor = math.max(floor, tonumber(redis.call('ZSCORE', changes, over) or '0'))
  redis.call('HDEL', records, over)
  redis.call('ZREM', changes, over)
  redis.call('ZREM', ends, over)
  redis.call('HSET', records, 'floor', string.format('%.0f', floor))
end

local before = redis.call('HGET', records, field)
if withdraw ~= '' then
  if not before or cjson.decode(string.match(before, '^%d+ %d+ (.*)$'))[3] == '' then
    return {'nothing'}
  end
  till = string.format('%.0f', math.floor(now / 1000) + keep)
elseif not before and redis.call('ZCARD', changes) >= tonumber(most) then
  return {'full'}
end

-- Later than all that was said before, whatever became of the clock meanwhile.
local version = math.max(now, floor + 1, tonumber(redis.call('HGET', records, 'version') or '0') + 1)
local number = string.format('%.0f', version)
redis.call('HSETNX', records, 'history', number)
redis.call('HSET', records, 'version', number, field, number .. ' ' .. number .. ' ' .. said)
redis.call('ZADD', changes, number, field)
if till == '' then
  redis.call('ZREM', ends, field)
else
  redis.call('ZADD', ends, till, field)
end
redis.call('PUBLISH', channel, number)
return {number, before}
