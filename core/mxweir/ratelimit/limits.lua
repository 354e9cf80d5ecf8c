-- Limits that many hosts count together: the arithmetic of arithmetic.py, in Redis and by Redis's clock.
--
-- One call answers many questions of one shape; shapes.py says what KEYS, ARGV and the reply consist of.
-- The questions are answered in their order, each as if it were alone: a later one finds what an earlier
-- one has charged. What is to be written is gathered, so that a key is written once a call, together with
-- its expiry.
--
--   rate      string, three doubles: events in use, when, and until when the key lives (µs). Not bound to a
--             rate: a new one takes effect on what is there. The key lives somewhat longer than it counts, so
--             that most charges leave its expiry as it is.
--   window    string, MessagePack: width of a part in µs, number of the first part, then for each part its
--             distance from that and its count, oldest first.
--   distinct  sorted set: value, when it was last seen (µs).
--
-- What is remembered of a time to come (the clock was set back, a failover) counts as of now, and a counter is
-- never fuller than full. That is written even where nothing is charged, or it would be full for as long as the
-- clock takes to catch up; so is what refuses, to live as long as it now counts.

local time = redis.call('TIME') local now = time[1] * 1000000 + time[2]

local not_after, mode, lifetime, count = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if not_after > 0 and now > not_after then
  return {now, 'late'}
end

local PEEK, APART, GIVE_BACK = '1', '2', '3'
local RATE, WINDOW, DISTINCT = 0, 1, 2
local PARTS = 60           -- of a window: arithmetic.SLICES
local LATE = 0.999         -- of a part, when it is told by its time: memory._LATE
local ROUNDING = 2^-10     -- events that are forgiven: arithmetic.ROUNDING
local LONGEST = 100 * 366 * 86400 * 1000000
local MARGIN, SECOND = 10000000, 1000000  -- that a rate's key lives longer; to what its end is rounded up
local MOST = 4000          -- keys at a time: `unpack` takes no more than 8,000
local KEYS, call, pack, unpack_struct, floor, format =
  KEYS, redis.call, struct.pack, struct.unpack, math.floor, string.format

-- The limits: what kind, two figures, whether they only observe, where their argument stands.
local kinds, firsts, seconds, observes, places = {}, {}, {}, {}, {}
local plain, arguments, head = true, 0, 4 + 4 * count
for i = 1, count do
  local base = 4 * i
  local kind, flags = tonumber(ARGV[base + 1]), tonumber(ARGV[base + 4])
  kinds[i], firsts[i], seconds[i] = kind, tonumber(ARGV[base + 2]), tonumber(ARGV[base + 3])
  if kind == RATE then
    firsts[i] = firsts[i] / 1000000
  else
    seconds[i] = seconds[i] * 1000000
  end
  if kind ~= RATE or flags ~= 0 then plain = false end
  if flags % 2 == 1 then observes[i] = true end
  if flags >= 2 then
    arguments = arguments + 1
    places[i] = arguments
  end
end
local repeats = lifetime > 0 and 1 or 0
local width = count + repeats
local values = {}
for first = 1, #KEYS, MOST do
  local some = call('MGET', unpack(KEYS, first, math.min(first + MOST - 1, #KEYS)))
  if #KEYS <= MOST then values = some break end
  for k = 1, #some do values[first + k - 1] = some[k] end
end

local reply = {now}
local function say(question, limit, used, wait)
  local n = #reply
  reply[n + 1], reply[n + 2] = question, limit
  reply[n + 3], reply[n + 4] = math.ceil(used - ROUNDING), math.min(math.ceil(wait), LONGEST)
end

-- What is to be written, by key: events in use, parts of a window; by which limit's pace; how long it lives now.
local rates, windows, limit_of, ends = {}, {}, {}, {}

-- Which part of a window a time (µs) is in. Times are whole, and widths may be rounded: half a µs keeps what is
-- exactly at the begin of a part in it.
local function part_of(at, each)
  return floor((at + 0.5) / each)
end

local function in_use(i, key, stored)
  local used = rates[key]
  if used then return used end
  if not stored or #stored ~= 24 then return 0 end
  local at
  used, at, ends[key] = unpack_struct('<ddd', stored)
  used = used - (now - at) * firsts[i]
  if used <= 0 then return 0 end
  if used > seconds[i] + ROUNDING then rates[key], limit_of[key] = seconds[i], i end
  return math.min(used, seconds[i])
end

local function ask_rate(i, key, stored, cost)
  local used = in_use(i, key, stored)
  local excess = used + cost - seconds[i]
  if excess <= ROUNDING then return used, 0 end
  -- Not charged, and yet written: at a slower rate than before, it would be gone before it is empty.
  if used > 0 then rates[key], limit_of[key] = used, i end
  return used, excess / firsts[i]
end

-- Parts as {part, count, part, count, ..., total = , changed = }, cut to the width of now. What has left the
-- window is forgotten for good: a clock that is set back does not bring it back.
local function parts_of(i, key, stored)
  local parts = windows[key]
  if parts then return parts end
  parts = {total = 0}
  windows[key], limit_of[key] = parts, i
  local each = seconds[i] / PARTS
  local current, n = part_of(now, each), 0
  local old = stored and cmsgpack.unpack(stored) or {}
  for k = 3, #old, 2 do
    local part = old[2] + old[k]
    if old[1] ~= each then part, parts.changed = floor((part + LATE) * old[1] / each), true end
    if part > current then part, parts.changed = current, true end
    if part >= current - PARTS then
      if parts[n - 1] == part then
        parts[n] = parts[n] + old[k + 1]
      else
        parts[n + 1], parts[n + 2] = part, old[k + 1]
        n = n + 2
      end
      parts.total = parts.total + old[k + 1]
    else
      parts.changed = true
    end
  end
  return parts
end

local function ask_window(i, key, stored, cost)
  local parts = parts_of(i, key, stored)
  local excess = parts.total + cost - firsts[i]
  if excess <= 0 then return parts.total, 0 end
  for k = 1, #parts, 2 do
    excess = excess - parts[k + 1]
    if excess <= 0 then
      return parts.total, (parts[k] + PARTS + 1) * (seconds[i] / PARTS) - now
    end
  end
  return parts.total, seconds[i]
end

local function charge_window(i, key, cost)
  local parts = windows[key]
  local current, n = part_of(now, seconds[i] / PARTS), #parts
  if parts[n - 1] ~= current then
    parts[n + 1], parts[n + 2] = current, 0
    n = n + 2
  end
  parts[n], parts.total, parts.changed = parts[n] + cost, parts.total + cost, true
end

local function micros(number)
  return format('%.0f', number)
end

local function expiry(at)
  return format('%d', math.min(at, now + LONGEST) / 1000 + 1)
end

local function ask_distinct(i, key, value)
  local over = micros(now - seconds[i])
  local held = call('ZCARD', key)
  if held > 0 and held ~= call('ZCOUNT', key, '(' .. over, micros(now)) then
    if mode == PEEK then
      held = call('ZCOUNT', key, '(' .. over, '+inf')
    else
      call('ZREMRANGEBYSCORE', key, '-inf', over)
      for _, early in ipairs(call('ZRANGEBYSCORE', key, '(' .. micros(now), '+inf')) do
        call('ZADD', key, micros(now), early)
      end
      held = call('ZCARD', key)
    end
  end
  if held < firsts[i] then return held, 0 end
  local seen = call('ZSCORE', key, value)
  if seen and tonumber(seen) > now - seconds[i] then return held, 0 end
  if mode ~= PEEK then call('PEXPIREAT', key, expiry(now + seconds[i])) end
  local oldest = call('ZRANGEBYSCORE', key, '(' .. over, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return held, math.min(tonumber(oldest[2]), now) + seconds[i] - now
end

local function charge_distinct(i, key, value)
  call('ZADD', key, micros(now), value)
  call('PEXPIREAT', key, expiry(now + seconds[i]))
end

local function argument_of(question, i)
  return places[i] and ARGV[head + question * arguments + places[i]]
end

local function ask(question, i, key, stored)
  if kinds[i] == DISTINCT then return ask_distinct(i, key, argument_of(question, i)) end
  local cost = tonumber(argument_of(question, i) or 1)
  if kinds[i] == WINDOW then return ask_window(i, key, stored, cost) end
  return ask_rate(i, key, stored, cost)
end

local function charge(question, i, key, stored)
  if kinds[i] == DISTINCT then return charge_distinct(i, key, argument_of(question, i)) end
  local cost = tonumber(argument_of(question, i) or 1)
  if kinds[i] == WINDOW then return charge_window(i, key, cost) end
  rates[key], limit_of[key] = in_use(i, key, stored) + cost, i
end

-- All limits are asked before any is charged.
local function decide(question, base)
  local passed = {}
  for i = 1, count do
    local used, wait = ask(question, i, KEYS[base + i], values[base + i])
    if wait > 0 then
      say(question + 1, i, used, wait)
      if not observes[i] then return false end
    else
      passed[#passed + 1] = i
    end
  end
  for _, i in ipairs(passed) do
    charge(question, i, KEYS[base + i], values[base + i])
  end
  return true
end

-- Where all limits are rates that take one each time and none only observes: the same without a call in between.
local after = {}
local function decide_rates(question, base)
  for i = 1, count do
    local key = KEYS[base + i]
    local used = rates[key]
    if not used then
      local stored = values[base + i]
      used = 0
      if stored and #stored == 24 then
        local before, at, last = unpack_struct('<ddd', stored)
        ends[key] = last
        used = before - (now - at) * firsts[i]
        if used < 0 then used = 0 end
      end
    end
    if used + 1 > seconds[i] + ROUNDING then return decide(question, base) end
    after[i] = used + 1
  end
  for i = 1, count do
    local key = KEYS[base + i]
    rates[key], limit_of[key] = after[i], i
  end
  return true
end

-- A key that lives long enough, and no longer than a new one would, is changed in place and keeps its expiry.
local expiries = {}
local function write_rate(key, used)
  local empty, last = now + math.min(used / firsts[limit_of[key]], LONGEST), ends[key]
  if last and last >= empty and last <= empty + MARGIN + SECOND then
    call('SETRANGE', key, '0', pack('<dd', used, now))
    return
  end
  local second = math.ceil((empty + MARGIN) / SECOND)
  local at = expiries[second]
  if not at then
    at = format('%d000', second)
    expiries[second] = at
  end
  call('SET', key, pack('<ddd', used, now, second * SECOND), 'PXAT', at)
end

local function write()
  for key, used in pairs(rates) do
    write_rate(key, used)
  end
  for key, parts in pairs(windows) do
    if parts.changed and #parts == 0 then
      call('DEL', key)
    elseif parts.changed then
      local each = seconds[limit_of[key]] / PARTS
      local flat = {each, parts[1]}
      for k = 1, #parts, 2 do
        flat[k + 2], flat[k + 3] = parts[k] - parts[1], parts[k + 1]
      end
      call('SET', key, cmsgpack.pack(flat), 'PXAT', expiry((parts[#parts - 1] + PARTS + 1) * each))
    end
  end
end

local function ceiled(number)
  return math.min(math.ceil(number), LONGEST)
end

if mode == PEEK then
  reply[2] = (repeats == 1 and values[1]) and 1 or 0
  for i = 1, count do
    local used, wait = ask(0, i, KEYS[repeats + i], values[repeats + i])
    reply[2 * i + 1], reply[2 * i + 2] = ceiled(used - ROUNDING), ceiled(wait)
  end
  return reply
end

if mode == APART then
  local key, before = KEYS[1], 0
  if kinds[1] == DISTINCT then before = tonumber(call('ZSCORE', key, argument_of(0, 1)) or 0) end
  local used, wait = ask(0, 1, key, values[1])
  if wait <= 0 then charge(0, 1, key, values[1]) end
  write()
  return {now, ceiled(used - ROUNDING), ceiled(wait), before}
end

if mode == GIVE_BACK then
  local key, argument = KEYS[1], argument_of(0, 1)
  local charged, before = tonumber(ARGV[head + arguments + 1]), tonumber(ARGV[head + arguments + 2])
  if kinds[1] == DISTINCT then
    if tonumber(call('ZSCORE', key, argument) or 0) == charged then
      if before > 0 then
        call('ZADD', key, micros(before), argument)
      else
        call('ZREM', key, argument)
      end
    end
  elseif kinds[1] == WINDOW then
    local parts, part = parts_of(1, key, values[1]), part_of(charged, seconds[1] / PARTS)
    for k = 1, #parts, 2 do
      if parts[k] == part then
        parts[k + 1], parts.changed = math.max(0, parts[k + 1] - tonumber(argument or 1)), true
      end
    end
  elseif values[1] then
    local left = in_use(1, key, values[1]) - tonumber(argument or 1)
    rates[key], limit_of[key] = left > ROUNDING and left or nil, 1
    if left <= ROUNDING then call('DEL', key) end
  end
  write()
  return reply
end

local charged = {}
local answer = plain and decide_rates or decide
for question = 0, #KEYS / width - 1 do
  local base = question * width
  local known = repeats == 1 and (values[base + 1] or charged[KEYS[base + 1]])
  if not known and answer(question, base + repeats) and repeats == 1 then
    charged[KEYS[base + 1]] = true
  end
end
local forgotten = expiry(now + lifetime * 1000000)
for key in pairs(charged) do
  call('SET', key, '', 'PXAT', forgotten)
end
write()
return reply
