-- Changes the table of who is on a topic and pushes what has changed; without anything to push, only
-- tidies it up and keeps it from expiring. What a connection put is not undone by what it had put
-- before and arrives later. Gives how many changes the table has had.
-- KEYS: the table. ARGV: seconds to keep it, the command that pushes, the channel, what is pushed, the
-- field with the number of the connection's last change, the number of this one, how many fields are
-- set, fields and values, fields to delete.
local last = ARGV[4] ~= '' and redis.call('HGET', KEYS[1], ARGV[5])
if not last or (tonumber(last) or 0) < tonumber(ARGV[6]) then
  local set = tonumber(ARGV[7])
  local first = 8 + 2 * set
  if first <= #ARGV then
    redis.call('HDEL', KEYS[1], unpack(ARGV, first, #ARGV))
  end
  if ARGV[4] ~= '' then
    local epoch = redis.call('HGET', KEYS[1], 'e')
    if not epoch then
      local time = redis.call('TIME')
      epoch = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
      redis.call('HSET', KEYS[1], 'e', epoch, 'n', 0)
    end
    redis.call('HSET', KEYS[1], ARGV[5], ARGV[6], unpack(ARGV, 8, first - 1))
    local number = redis.call('HINCRBY', KEYS[1], 'n', 1)
    redis.call(ARGV[2], ARGV[3], epoch .. '-' .. string.format('%d', number) .. ':' .. ARGV[4])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return redis.call('HMGET', KEYS[1], 'e', 'n')
