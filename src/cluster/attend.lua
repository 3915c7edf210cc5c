-- Enters that a connection of a node is alive, and gives all that are. Who was not heard of for too
-- long is removed; if that is the connection itself, it must enter under another name.
-- KEYS: those who are alive, by the time. ARGV: the connection, milliseconds, '1' if it is new.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%d', now - ARGV[2]))
if ARGV[3] == '1' or redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], string.format('%d', now), ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 4)
return redis.call('ZRANGE', KEYS[1], 0, -1)
