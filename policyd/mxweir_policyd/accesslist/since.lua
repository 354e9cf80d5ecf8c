-- What was said after a version, in order.
--
-- KEYS  as in change.lua
-- ARGV  the version that is known, most records
-- Reply {now in microseconds, history, version, floor, record, ...}
local records, changes = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local reply = {
  string.format('%.0f', time[1] * 1000000 + time[2]),
  redis.call('HGET', records, 'history') or '',
  redis.call('HGET', records, 'version') or '0',
  redis.call('HGET', records, 'floor') or '0',
}
for _, field in ipairs(redis.call('ZRANGEBYSCORE', changes, '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])) do
  reply[#reply + 1] = redis.call('HGET', records, field)
end
return reply
