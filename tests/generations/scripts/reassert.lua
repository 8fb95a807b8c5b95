-- A node that has connected again takes a session again that it owns: the server may be another one by now, and may have
-- lost the end of what was stored; and what the node has sent before may still arrive.
--
-- KEYS[1]  the session's record
-- ARGV     node, token of the claim, attempt (the number of the node's connection), time to live in ms, prefix of the nodes'
--          channels, id of the session, generation that the owner has, count, state
-- Returns  the owner's new generation; null if the session has been taken over
--
-- Always a new generation: if two nodes each think that they are the owner, one of them because its takeover was lost,
-- the first that asks wins, and the other one is refused from then on. An earlier attempt of which the answer was lost has
-- made a generation too: of this owner's ('from'), so that is no takeover. If it arrives behind this one, it changes nothing.
local key, node, token, attempt, mine = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[7])
local stored = redis.call('HMGET', key, 'generation', 'node', 'token', 'attempt', 'from')
local owner = tonumber(stored[1]) or 0
if stored[3] == token and tonumber(stored[4]) >= tonumber(attempt) then
  return false
end
if owner > mine and tonumber(stored[5]) ~= mine then
  return false
end
local time = redis.call('TIME')
local generation = math.max(owner + 1, mine + 1, time[1] * 1000000 + time[2])
generation = string.format('%.0f', generation)
redis.call('HSET', key, 'generation', generation, 'node', node, 'token', token, 'attempt', attempt, 'from', ARGV[7],
  'count', ARGV[8], 'state', ARGV[9])
redis.call('PEXPIRE', key, ARGV[4])
if stored[2] and stored[2] ~= node then
  redis.call('PUBLISH', ARGV[5] .. stored[2], generation .. ' ' .. ARGV[6])
end
return generation
