-- Appends an entry to a channel's log and pushes it, unless that was done before.
-- KEYS: log, its state, the last sequence of this publisher. ARGV: sequence, entry, entries to keep,
-- seconds to keep them, the channel, the command that pushes: none, if replicas are to have it first.
-- Gives the entry's place, unless a later one of this publisher stands there.
local before = redis.call('GET', KEYS[3])
local sequence, place = string.match(before or '', '^(%d+) (.*)$')
if sequence and tonumber(sequence) >= tonumber(ARGV[1]) then
  if ARGV[6] == '' then
    -- A server promises to wait for what the same connection has written, and for no more.
    redis.call('SET', KEYS[3], before, 'EX', ARGV[4])
  end
  return tonumber(sequence) == tonumber(ARGV[1]) and place
end
local state = redis.call('HMGET', KEYS[2], 'e', 'n')
local epoch, number = state[1], (state[2] or 0) + 1
if not epoch then
  number = 1
  local time = redis.call('TIME')
  epoch = time[1] * 1000 + math.floor(time[2] / 1000)
  -- The log may have outlived its state, and the clock may have been set back.
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  if last then
    epoch = math.max(epoch, tonumber(string.match(last[1], '^%d+')) + 1)
  end
  epoch = string.format('%d', epoch)
end
local id
local function append()
  id = epoch .. '-' .. string.format('%d', number)
  return redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], id, 'd', ARGV[2])
end
local appended = append()
if appended.err and string.find(appended.err, 'The ID specified', 1, true) then
  -- Somebody else has put something there that is in the way. A new epoch says that entries are lost.
  local time = redis.call('TIME')
  epoch = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(epoch) + 1)
  epoch, number = string.format('%d', epoch), 1
  redis.call('DEL', KEYS[1])
  appended = append()
end
if appended.err then
  -- Where the log is something else, nothing has happened.
  return appended
end
redis.call('HSET', KEYS[2], 'e', epoch, 'n', string.format('%d', number))
redis.call('SET', KEYS[3], ARGV[1] .. ' ' .. id, 'EX', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[4])
-- The state stays for longer: to nodes that still follow the channel a new epoch is a gap.
redis.call('EXPIRE', KEYS[2], ARGV[4] * 24)
if ARGV[6] ~= '' then
  redis.call(ARGV[6], ARGV[5], id .. ':' .. ARGV[2])
end
return id
