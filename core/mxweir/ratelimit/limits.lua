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

local not_after, mode, shape = tonumber(ARGV[1]), ARGV[2], ARGV[3]
if not_after > 0 and now > not_after then
  return {now, 'late'}
end

local CHARGE, PEEK, APART, GIVE_BACK = '0', '1', '2', '3'
local RATE, WINDOW, DISTINCT = 0, 1, 2
local PARTS = 60           -- of a window: arithmetic.SLICES
local LATE = 0.999         -- of a part, when it is told by its time: memory._LATE
local ROUNDING = 2^-10     -- events that are forgiven: arithmetic.ROUNDING
local LONGEST = 100 * 366 * 86400 * 1000000
local SECOND = 1000000     -- to which the end of a rate's key is rounded up
local MARGIN, AGAIN = 10 * SECOND, 60 * SECOND  -- that it lives longer: a new one, one that is charged again
local MOST = 4000          -- keys at a time: `unpack` takes no more than 8,000
local HEAD = 3             -- ARGV before the questions' own
local KEYS, ARGV, call, pack, unpack_struct, floor, ceil, min, format =
  KEYS, ARGV, redis.call, struct.pack, struct.unpack, math.floor, math.ceil, math.min, string.format

-- The limits: what kind, two figures, whether they only observe, where their argument stands.
local kinds, firsts, seconds, observes, places = {}, {}, {}, {}, {}
local lifetime, count = unpack_struct('<dd', shape)
local repeats = lifetime > 0 and 1 or 0
local plain, arguments = mode == CHARGE, repeats
for i = 1, count do
  local kind, first, second, flags = unpack_struct('<dddd', shape, 32 * i - 15)
  if kind == RATE then
    first = first / 1000000
  else
    second = second * 1000000
  end
  kinds[i], firsts[i], seconds[i] = kind, first, second
  if kind ~= RATE or flags ~= 0 then plain = false end
  if flags % 2 == 1 then observes[i] = true end
  if flags >= 2 then
    arguments = arguments + 1
    places[i] = arguments
  end
end

-- By where the key stands.
local function read()
  local values = {}
  for first = 1, #KEYS, MOST do
    local some = call('MGET', unpack(KEYS, first, min(first + MOST - 1, #KEYS)))
    if #KEYS <= MOST then return some end
    for k = 1, #some do values[first + k - 1] = some[k] end
  end
  return values
end

local values, reply = read(), {now}
local questions = (#KEYS - repeats) / count

local function expiry(at)
  return format('%d', min(at, now + LONGEST) / 1000 + 1)
end

-- Repeated questions are known by their marks, which stand in numbered sets. Each takes marks for one lifetime; the
-- one before it is looked at too, so a mark is known for one lifetime at least, and for two at most. The first key
-- says which number takes marks now, and until when.
local known, all = {}, {}
local number, last, due
if repeats == 1 then
  number, last = 0, 0
  if values[1] and #values[1] == 16 then number, last = unpack_struct('<dd', values[1]) end
  due = now > last
  if due then number = number + 1 end
end

local function set_of(number)
  return KEYS[1] .. ':' .. number
end

if repeats == 1 then
  for question = 0, questions - 1 do
    all[question + 1] = ARGV[HEAD + question * arguments + 1]
  end
  for before = 0, 1 do
    for k, found in ipairs(call('SMISMEMBER', set_of(number - before), unpack(all))) do
      if found == 1 then known[all[k]] = true end
    end
  end
end

-- A set that takes its first marks gets its expiry, and the last but one goes, before its own: there may be many
-- marks in it, and Redis would free them in the midst of its other work.
local function write_marks(marks)
  if #marks == 0 then return end
  call('SADD', set_of(number), unpack(marks))
  local ahead = lifetime * 1000000
  if not due and last <= now + ahead then return end
  call('SET', KEYS[1], pack('<dd', number, now + ahead), 'PXAT', expiry(now + 2 * ahead))
  if due then
    call('PEXPIREAT', set_of(number), expiry(now + 2 * ahead))
    call('UNLINK', set_of(number - 2))
  end
end

-- A key that lives long enough, and no longer than a new one would, is changed in place and keeps its expiry.
local expiries = {}
local function write_rate(key, used, rate, last)
  local ahead = used / rate
  if ahead > LONGEST then ahead = LONGEST end
  local empty = now + ahead
  if last >= empty and last <= empty + AGAIN + SECOND then
    call('SETRANGE', key, '0', pack('<dd', used, now))
    return
  end
  local second = ceil((empty + (last > 0 and AGAIN or MARGIN)) / SECOND)
  local at = expiries[second]
  if not at then
    at = format('%d000', second)
    expiries[second] = at
  end
  call('SET', key, pack('<ddd', used, now, second * SECOND), 'PXAT', at)
end

-- Nearly every call: all limits are rates that take one each time and none only observes, no question is a repeated
-- one, and all have room. So nobody looks twice at a key, and the reply is empty. Nothing is written before that is
-- known; whatever it is that this does not see to, the rest of the script begins anew.
if plain and not next(known) then
  local uses, told = {}, {}
  for question = 1, questions do
    local base, mark = repeats + (question - 1) * count, all[question]
    if mark then
      if told[mark] then plain = false break end
      told[mark] = true
    end
    for i = 1, count do
      local key = KEYS[base + i]
      local used = uses[key]
      if not used then
        local stored, at, last = values[base + i], now, 0
        used = 0
        if stored and #stored == 24 then used, at, last = unpack_struct('<ddd', stored) end
        used, values[base + i] = used - (now - at) * firsts[i], last
        if used < 0 then used = 0 end
      end
      used = used + 1
      if used > seconds[i] + ROUNDING then plain = false break end
      uses[key] = used
    end
    if not plain then break end
  end
  if plain then
    write_marks(all)
    for base = repeats, #KEYS - 1, count do
      for i = 1, count do
        local key = KEYS[base + i]
        local used = uses[key]
        if used then
          write_rate(key, used, firsts[i], values[base + i])
          uses[key] = false
        end
      end
    end
    return reply
  end
  values = read()
end

-- Rates, each key where it stands first: how many events are in use, until when it lives, whether it is to be
-- written. `same` has that place for where a key stands again.
local place_of, same, uses, ends, changed = {}, {}, values, {}, {}
for base = repeats, #KEYS - 1, count do
  for i = 1, count do
    if kinds[i] == RATE then
      local p = base + i
      local key = KEYS[p]
      local before = place_of[key]
      if before then
        same[p] = before
      else
        local stored, used, at, last = values[p], 0, 0, 0
        if stored and #stored == 24 then
          used, at, last = unpack_struct('<ddd', stored)
          used = used - (now - at) * firsts[i]
          if used < 0 then used = 0 end
        end
        place_of[key], uses[p], ends[p] = p, used, last
      end
    end
  end
end

local function say(question, limit, used, wait)
  local n = #reply
  reply[n + 1], reply[n + 2] = question, limit
  reply[n + 3], reply[n + 4] = ceil(used - ROUNDING), min(ceil(wait), LONGEST)
end

-- Windows, by key: their parts; by which limit's pace.
local windows, limit_of = {}, {}

-- Which part of a window a time (µs) is in. Times are whole, and widths may be rounded: half a µs keeps what is
-- exactly at the begin of a part in it.
local function part_of(at, each)
  return floor((at + 0.5) / each)
end

local function ask_rate(i, p, cost)
  p = same[p] or p
  local used, full = uses[p], seconds[i]
  if used > full then
    if used > full + ROUNDING then changed[p] = true end
    used, uses[p] = full, full
  end
  local excess = used + cost - full
  if excess <= ROUNDING then return used, 0 end
  -- Not charged, and yet written: at a slower rate than before, it would be gone before it is empty.
  if used > 0 then changed[p] = true end
  return used, excess / firsts[i]
end

local function charge_rate(p, cost)
  p = same[p] or p
  uses[p], changed[p] = uses[p] + cost, true
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
  return held, min(tonumber(oldest[2]), now) + seconds[i] - now
end

local function charge_distinct(i, key, value)
  call('ZADD', key, micros(now), value)
  call('PEXPIREAT', key, expiry(now + seconds[i]))
end

local function argument_of(question, i)
  return places[i] and ARGV[HEAD + question * arguments + places[i]]
end

-- `p` is where the limit's key stands.
local function ask(question, i, p)
  if kinds[i] == DISTINCT then return ask_distinct(i, KEYS[p], argument_of(question, i)) end
  local cost = tonumber(argument_of(question, i) or 1)
  if kinds[i] == WINDOW then return ask_window(i, KEYS[p], values[p], cost) end
  return ask_rate(i, p, cost)
end

local function charge(question, i, p)
  if kinds[i] == DISTINCT then return charge_distinct(i, KEYS[p], argument_of(question, i)) end
  local cost = tonumber(argument_of(question, i) or 1)
  if kinds[i] == WINDOW then return charge_window(i, KEYS[p], cost) end
  return charge_rate(p, cost)
end

-- All limits are asked before any is charged.
local function decide(question, base)
  local passed = {}
  for i = 1, count do
    local used, wait = ask(question, i, base + i)
    if wait > 0 then
      say(question + 1, i, used, wait)
      if not observes[i] then return false end
    else
      passed[#passed + 1] = i
    end
  end
  for _, i in ipairs(passed) do
    charge(question, i, base + i)
  end
  return true
end

local function write()
  for base = repeats, #KEYS - 1, count do
    for i = 1, count do
      local p = base + i
      if changed[p] then write_rate(KEYS[p], uses[p], firsts[i], ends[p]) end
    end
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
  return min(ceil(number), LONGEST)
end

if mode == PEEK then
  reply[2] = next(known) and 1 or 0
  for i = 1, count do
    local used, wait = ask(0, i, repeats + i)
    reply[2 * i + 1], reply[2 * i + 2] = ceiled(used - ROUNDING), ceiled(wait)
  end
  return reply
end

if mode == APART then
  local key, before = KEYS[1], 0
  if kinds[1] == DISTINCT then before = tonumber(call('ZSCORE', key, argument_of(0, 1)) or 0) end
  local used, wait = ask(0, 1, 1)
  if wait <= 0 then charge(0, 1, 1) end
  write()
  return {now, ceiled(used - ROUNDING), ceiled(wait), before}
end

if mode == GIVE_BACK then
  local key, argument = KEYS[1], argument_of(0, 1)
  local charged, before = tonumber(ARGV[HEAD + arguments + 1]), tonumber(ARGV[HEAD + arguments + 2])
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
  else
    local left = ask_rate(1, 1, 0) - tonumber(argument or 1)
    uses[1], changed[1] = left, left > ROUNDING
    if left <= ROUNDING then call('DEL', key) end
  end
  write()
  return reply
end

local marks = {}
for question = 0, questions - 1 do
  local mark = all[question + 1]
  if not (mark and known[mark]) and decide(question, repeats + question * count) and mark then
    known[mark], marks[#marks + 1] = true, mark
  end
end
write_marks(marks)
write()
return reply
